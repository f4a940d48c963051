"""What runs in the pods: the programs' own options, two identities, probes, an orderly end."""

from __future__ import annotations

from typing import Any

import click
import pytest

from acme_server.main import ShutdownTimes
from acme_server.replicas import ports_of
from e2e.chart.helm import Helm
from e2e.chart.kinds import APIS
from kms.cluster.auth import SERVICE_ACCOUNT
from kms.resources.core import EndpointPort, EndpointSlice
from kms.resources.meta import ObjectMeta
from kms_acme.cli import main
from kms_acme.cli.operator_options import operator_settings
from kms_acme.cli.server_options import server_settings
from tests.support.charts import EVERYTHING, PERMUTATIONS, Values, container, of_kind, one, pod_of

PROGRAMS = {"server": main.server, "operator": main.operator, "check": main.check}


@pytest.fixture(params=list(PERMUTATIONS.values()), ids=list(PERMUTATIONS), scope="module")
def manifests(request: pytest.FixtureRequest, helm: Helm) -> list[dict[str, Any]]:
    return helm.render(request.param, apis=APIS)


def parsed(args: list[str], folder: Any) -> dict[str, Any]:
    """The options of a container as its program understands them; files that are mounted there are looked for here."""
    command = PROGRAMS[args[0]]
    mounted = {"--tls-certificate", "--tls-private-key", "--ca-certificate"}
    line = []
    for each in args[1:]:
        flag, _, value = each.partition("=")
        if flag in mounted:
            (folder / flag).touch()
            value = str(folder / flag)
        elif flag == "--server-token-directory":
            value = str(folder)
        line.append(f"{flag}={value}")
    return command.make_context(args[0], line).params


def test_every_argument_is_an_option_of_its_program(manifests: list[dict[str, Any]], tmp_path: Any) -> None:
    server = parsed(container(manifests, "server")["args"], tmp_path)
    operator = parsed(container(manifests, "operator")["args"], tmp_path)
    assert server_settings(server).token_directory
    assert operator_settings(operator).server_identity
    for each in (
        "external_url",
        "namespace",
        "watch_namespaces",
        "service_name",
        "serving_secret",
        "deletion_retention",
    ):
        assert server[each] == operator[each], f"both must be told the same {each}"
    assert parsed(one(manifests, "Pod")["spec"]["containers"][0]["args"], tmp_path)["wait"] > 0


def test_the_operator_is_told_who_may_have_issuers_of_cert_manager_made_beyond_his_namespace(
    helm: Helm, tmp_path: Any
) -> None:
    values = {"certManager": {"namespace": "certificates", "clusterIssuersFrom": ["pki", "shop"]}}
    settings = operator_settings(parsed(container(helm.render(values), "operator")["args"], tmp_path))
    assert settings.cert_manager_namespace == "certificates"
    reaching = [each for each in ("pki", "shop", "kms-acme", "default") if settings.reaches_beyond(each)]
    assert reaching == ["pki", "shop", "kms-acme"]
    alone = operator_settings(parsed(container(helm.render(), "operator")["args"], tmp_path))
    assert (alone.cert_manager_namespace, alone.cluster_issuers_from) == ("cert-manager", ())


def test_the_operator_is_told_who_may_have_open_profiles(helm: Helm, tmp_path: Any) -> None:
    values = {"operator": {"openProfilesFrom": ["pki"]}}
    settings = operator_settings(parsed(container(helm.render(values), "operator")["args"], tmp_path))
    assert [each for each in ("pki", "kms-acme", "shop") if settings.allows_open_profiles(each)] == ["pki", "kms-acme"]
    everywhere = {"operator": {"openProfilesFrom": ["*"]}}
    settings = operator_settings(parsed(container(helm.render(everywhere), "operator")["args"], tmp_path))
    assert settings.allows_open_profiles("shop")


def test_the_operator_is_told_whose_receivers_are_told(helm: Helm, tmp_path: Any) -> None:
    values = {"operator": {"notificationsFrom": ["pki"]}}
    settings = operator_settings(parsed(container(helm.render(values), "operator")["args"], tmp_path))
    assert [each for each in ("pki", "kms-acme", "shop") if settings.allows_notifications(each)] == ["pki", "kms-acme"]


def test_both_programs_are_told_which_modules_they_may_load(helm: Helm, tmp_path: Any) -> None:
    rendered = helm.render({"pkcs11Modules": ["/opt/hsm/lib.so"]})
    for name in ("server", "operator"):
        assert parsed(container(rendered, name)["args"], tmp_path)["pkcs11_modules"] == ("/opt/hsm/lib.so",)
        assert parsed(container(helm.render(), name)["args"], tmp_path)["pkcs11_modules"] == ()


@pytest.mark.requirement("X2")
def test_the_operator_is_told_whose_cas_may_be_external(helm: Helm, tmp_path: Any) -> None:
    values = {"externalAuthorities": {"from": ["pki"]}}
    settings = operator_settings(parsed(container(helm.render(values), "operator")["args"], tmp_path))
    allowed = [each for each in ("pki", "kms-acme", "shop") if settings.allows_external_authorities(each)]
    assert allowed == ["pki", "kms-acme"]


def test_the_operator_is_told_how_many_secrets_it_may_keep(helm: Helm, tmp_path: Any) -> None:
    values = {"operator": {"maximumSecrets": 70, "maximumSecretsPerNamespace": 7}}
    settings = operator_settings(parsed(container(helm.render(values), "operator")["args"], tmp_path))
    assert (settings.maximum_secrets, settings.maximum_secrets_per_namespace) == (70, 7)


def test_each_program_listens_where_its_container_says(manifests: list[dict[str, Any]], tmp_path: Any) -> None:
    listening = {"server": ("listen", "http_listen", "metrics_listen"), "operator": ("metrics_listen",)}
    for name, options_ in listening.items():
        found = container(manifests, name)
        told = parsed(found["args"], tmp_path)
        assert [each["containerPort"] for each in found["ports"]] == [told[each].port for each in options_]


def test_the_operator_names_the_service_and_the_server_looks_for_peers(
    manifests: list[dict[str, Any]], tmp_path: Any
) -> None:
    services = {each["metadata"]["name"] for each in of_kind(manifests, "Service")}
    assert parsed(container(manifests, "operator")["args"], tmp_path)["service_name"] in services
    assert parsed(container(manifests, "server")["args"], tmp_path)["peer_service"] in services


@pytest.mark.requirement("SEC57")
def test_the_pods_token_is_in_the_operators_container_alone(manifests: list[dict[str, Any]]) -> None:
    pod = pod_of(manifests)
    assert pod["automountServiceAccountToken"] is False
    with_tokens = {
        each["name"]
        for each in pod["volumes"]
        if any("serviceAccountToken" in source for source in each.get("projected", {}).get("sources", []))
    }
    assert with_tokens == {"operator-identity"}
    mounts = {each["name"]: {mount["name"]: mount for mount in each["volumeMounts"]} for each in pod["containers"]}
    assert "operator-identity" not in mounts["server"]
    assert mounts["operator"]["operator-identity"]["mountPath"] == str(SERVICE_ACCOUNT)


@pytest.mark.requirement("SEC57")
def test_the_server_reads_what_the_operator_hands_it_and_it_is_in_memory(
    manifests: list[dict[str, Any]], tmp_path: Any
) -> None:
    (volume,) = (each for each in pod_of(manifests)["volumes"] if each["name"] == "server-identity")
    assert volume["emptyDir"]["medium"] == "Memory"
    places = {}
    for name in ("server", "operator"):
        (mount,) = (each for each in container(manifests, name)["volumeMounts"] if each["name"] == "server-identity")
        assert "subPath" not in mount, "a file that is replaced would not be seen"
        assert mount.get("readOnly", False) is (name == "server")
        places[name] = mount["mountPath"]
    args = {
        name: dict(each.removeprefix("--").partition("=")[::2] for each in container(manifests, name)["args"])
        for name in places
    }
    assert args["server"]["token-directory"] == places["server"]
    assert args["operator"]["server-token-directory"] == places["operator"]


def test_the_operator_asks_for_tokens_of_the_servers_account(helm: Helm) -> None:
    values = {"serviceAccount": {"server": {"name": "s"}, "operator": {"name": "o"}}}
    manifests = helm.render(values)
    assert pod_of(manifests)["serviceAccountName"] == "o"
    assert "--server-service-account=s" in container(manifests, "operator")["args"]


def test_the_servers_readiness_decides_about_clients_and_the_operators_only_about_rollouts(
    manifests: list[dict[str, Any]],
) -> None:
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    expected = {"server": ("/healthz", "/healthz", "/readyz"), "operator": ("/readyz", "/healthz", None)}
    for name, paths in expected.items():
        found = container(manifests, name)
        assert tuple(found.get(each, {}).get("httpGet", {}).get("path") for each in probes) == paths
        ports = {port["name"] for port in found["ports"]}
        assert {found[each]["httpGet"]["port"] for each in probes if each in found} <= ports


def test_a_pod_has_the_time_to_end(manifests: list[dict[str, Any]]) -> None:
    sleep = container(manifests, "server").get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod_of(manifests)["terminationGracePeriodSeconds"] >= sleep + ShutdownTimes().longest


def test_no_pod_is_missed_during_a_rollout(helm: Helm) -> None:
    strategy = one(helm.render(), "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_budget_lets_the_only_pod_be_evicted(helm: Helm) -> None:
    assert one(helm.render(), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_pods_are_spread_by_the_labels_that_they_have(manifests: list[dict[str, Any]]) -> None:
    selector = one(manifests, "Deployment")["spec"]["selector"]["matchLabels"]
    constraints = pod_of(manifests)["topologySpreadConstraints"]
    assert constraints
    assert all(each["labelSelector"]["matchLabels"] == selector for each in constraints)


@pytest.mark.parametrize("program", ["server", "operator"])
def test_options_variables_and_mounts_can_be_added(helm: Helm, program: str) -> None:
    added: Values = {
        program: {
            "extraArgs": ["--log-level=debug"],
            "extraEnv": [{"name": "A", "value": "b"}],
            "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        },
        "extraVolumes": [{"name": "v", "emptyDir": {}}],
    }
    found = container(manifests := helm.render(added), program)
    assert found["args"][-1] == "--log-level=debug"
    assert found["env"][-1] == {"name": "A", "value": "b"}
    assert {"name": "v", "mountPath": "/v"} in found["volumeMounts"]
    assert {"name": "v", "emptyDir": {}} in pod_of(manifests)["volumes"]


def test_a_network_policy_lets_through_what_the_programs_need(helm: Helm) -> None:
    spec = one(helm.render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]

    def ports(rules: list[dict[str, Any]]) -> list[set[Any]]:
        return [{each["port"] for each in rule["ports"]} for rule in rules]

    assert ports(spec["ingress"]) == [{"https", "http"}, {"metrics"}, {"metrics", "operator"}]
    assert ports(spec["egress"]) == [{53}, {443, 6443}, {"metrics"}, {80, 443, 8000, 8080, 8089, 8443}]
    assert "from" not in spec["ingress"][0], "clients may be anywhere"
    assert "to" not in spec["egress"][3], "challenges may lead anywhere"
    vault = {"vaultPorts": [8200], "vaultTargets": [{"ipBlock": {"cidr": "10.0.0.7/32"}}]}
    spec = one(helm.render({"networkPolicy": {"enabled": True, "egress": vault}}), "NetworkPolicy")["spec"]
    assert ports(spec["egress"])[4:] == [{8200}]
    assert spec["egress"][4]["to"] == vault["vaultTargets"]


def test_a_network_policy_with_clients_lets_the_test_in_while_it_runs(helm: Helm) -> None:
    clients = {"enabled": True, "clients": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}
    manifests = helm.render({"networkPolicy": clients, "watchNamespaces": ["pki"]})
    lasting, of_test = (one(manifests, "NetworkPolicy", name) for name in ("kms-acme", "kms-acme-test"))
    assert lasting["spec"]["ingress"][0]["from"] == clients["clients"]
    hook = of_test["metadata"]["annotations"]
    assert (hook["helm.sh/hook"], hook["helm.sh/hook-weight"]) == ("test", "0"), "before the pod"
    assert "hook-succeeded" in hook["helm.sh/hook-delete-policy"]
    assert of_test["spec"]["podSelector"] == lasting["spec"]["podSelector"]
    assert of_test["metadata"]["namespace"] == lasting["metadata"]["namespace"]
    pod = one(manifests, "Pod")["metadata"]
    ((peer,),) = (each["from"] for each in of_test["spec"]["ingress"])
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": pod["namespace"]}
    assert peer["podSelector"]["matchLabels"].items() <= pod["labels"].items()
    assert of_kind(helm.render({"networkPolicy": {"enabled": True}}), "NetworkPolicy") == [
        one(helm.render({"networkPolicy": {"enabled": True}}), "NetworkPolicy", "kms-acme")
    ]


def test_click_knows_the_programs_by_the_names_that_containers_use() -> None:
    context = click.Context(main.main)
    assert all(main.main.get_command(context, name) is command for name, command in PROGRAMS.items())


@pytest.mark.requirement("SEC85")
def test_the_networks_of_the_cluster_are_denied_by_one_value(helm: Helm, tmp_path: Any) -> None:
    assert parsed(container(helm.render(), "server")["args"], tmp_path)["validation_deny"] == ()
    validation = {"clusterNetworks": ["10.96.0.0/12", "10.244.0.0/16"], "deny": ["192.168.7.0/24"]}
    manifests = helm.render({"server": {"validation": validation}})
    denied = parsed(container(manifests, "server")["args"], tmp_path)["validation_deny"]
    assert [str(each) for each in denied] == ["10.96.0.0/12", "10.244.0.0/16", "192.168.7.0/24"]


@pytest.mark.parametrize("workers", [1, 3])
def test_every_worker_has_a_port_that_peers_prometheus_and_network_policies_know(
    helm: Helm, tmp_path: Any, workers: int
) -> None:
    manifests = helm.render({**EVERYTHING, "server": {"workers": workers}}, apis=APIS)
    found = container(manifests, "server")
    settings = server_settings(parsed(found["args"], tmp_path))
    ports = [settings.of_worker(number).metrics_listen.port for number in range(workers)]
    assert len(ports) == workers
    named = {each["containerPort"]: each["name"] for each in found["ports"]}
    names = [named[port] for port in ports]
    service = one(manifests, "Service", "kms-acme-peers")["spec"]["ports"]
    peers = [(each["name"], each["port"]) for each in service if each["targetPort"] in names]
    assert ports_of(
        EndpointSlice(metadata=ObjectMeta(), ports=tuple(EndpointPort(name=name, port=port) for name, port in peers))
    ) == tuple(ports)
    monitored = [each["port"] for each in one(manifests, "ServiceMonitor")["spec"]["endpoints"]]
    assert monitored == [name for name, _ in peers] + ["operator"]
    rules = one(manifests, "NetworkPolicy", "kms-acme")["spec"]["ingress"]
    assert [{"protocol": "TCP", "port": name} for name in names] in [each["ports"] for each in rules]
