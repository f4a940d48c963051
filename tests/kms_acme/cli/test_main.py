"""The command line: options become settings, mistakes exit with 2 and say what to write instead."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from acme_server.settings import ServerSettings
from kms.address import Address
from kms_acme import dev
from kms_acme.cli import main, options, server_options
from kms_acme.cli.operator_options import operator_settings
from kms_operator.settings import OperatorSettings, ServerIdentity

URL = "https://acme.example.com"


def values_of(command: click.Command, line: list[str]) -> dict[str, Any]:
    return command.make_context(command.name or "", line).params


def server_settings(*line: str) -> ServerSettings:
    return server_options.server_settings(values_of(main.server, ["--external-url", URL, *line]))


def test_the_defaults_of_the_server_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert server_settings() == ServerSettings(external_url=URL, namespace="kms-acme")


def test_the_defaults_of_the_operator_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    settings = operator_settings(values_of(main.operator, ["--external-url", URL]))
    assert settings == OperatorSettings(
        external_url=URL, namespace="kms-acme", metrics_listen=Address("", 9091), service_name="kms-acme"
    )


def test_every_option_of_the_server_reaches_its_setting(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.touch()
    key.touch()
    settings = server_settings(
        *("--kubeconfig", "config", "--context", "kind", "--namespace", "pki-system", "--watch-namespace", "a"),
        *("--watch-namespace", "b", "--listen", "127.0.0.1:14000", "--metrics-listen", "[::1]:14001"),
        *("--tls-certificate", str(certificate), "--tls-private-key", str(key), "--serving-secret", "serving"),
        *("--dns-server", "127.0.0.1:5353", "--http01-port", "5002", "--tls-alpn01-port", "5001"),
        *("--validation-allow", "127.0.0.0/8", "--validation-deny", "fd00::/8", "--peer-service", "acme"),
        *("--http-listen", "127.0.0.1:14002", "--http-url", "http://crl.example.com"),
    )
    assert settings.kubeconfig == "config"
    assert settings.context == "kind"
    assert settings.namespace == "pki-system"
    assert settings.watch_namespaces == ("a", "b")
    assert settings.listen == Address("127.0.0.1", 14000)
    assert settings.metrics_listen == Address("::1", 14001)
    assert settings.http_listen == Address("127.0.0.1", 14002)
    assert settings.http_url == "http://crl.example.com"
    assert (settings.tls_certificate, settings.tls_private_key) == (certificate, key)
    assert settings.serving_secret == "serving"
    assert settings.peer_service == "acme"
    assert settings.validation.resolvers == (Address("127.0.0.1", 5353),)
    assert settings.validation.http01_port == 5002
    assert settings.validation.tls_alpn01_port == 5001
    assert settings.validation.allow == (ip_network("127.0.0.0/8"),)
    assert settings.validation.deny == (ip_network("fd00::/8"),)


def test_every_option_is_also_an_environment_variable() -> None:
    for command in (main.server, main.operator, main.dev):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name != "install":
                flag = parameter.opts[0]
                assert parameter.envvar == "KMS_ACME_" + flag[2:].replace("-", "_").upper()


def test_what_an_installation_has_once_is_named_after_its_service() -> None:
    line = ("--external-url", URL, "--service-name", "shop")
    server, operator = server_settings(*line[2:]), operator_settings(values_of(main.operator, [*line]))
    assert server.nonce_secret == operator.nonce_secret == "shop-nonce"
    assert server.serving_secret == operator.serving_secret == "shop-serving"
    assert (operator.serving_authority, operator.lease_name) == ("shop-serving-ca", "shop-operator")
    named = operator_settings(values_of(main.operator, [*line, "--serving-secret", "corporate"]))
    assert (named.serving_secret, named.serving_authority) == ("corporate", "shop-serving-ca")


def test_an_environment_variable_stands_for_its_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMS_ACME_DNS_SERVER", "10.0.0.10:53 10.0.0.11:53")
    monkeypatch.setenv("KMS_ACME_NAMESPACE", "pki-system")
    settings = server_settings()
    assert settings.namespace == "pki-system"
    assert settings.validation.resolvers == (Address("10.0.0.10", 53), Address("10.0.0.11", 53))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (["server"], "--external-url"),
        (["server", "--external-url", URL, "--deletion-retention", "7d"], "'7d' is not a duration"),
        (["server", "--external-url", "http://acme.example.com"], "https://HOST"),
        (["server", "--external-url", "https://acme.example.com/acme"], "https://HOST"),
        (["server", "--external-url", "https://user@acme.example.com"], "https://HOST"),
        (["server", "--external-url", "https://acme.example.com:99999"], "https://HOST"),
        (["server", "--external-url", URL, "--listen", "8443"], "HOST:PORT"),
        (["server", "--external-url", URL, "--listen", ":port"], "HOST:PORT"),
        (["server", "--external-url", URL, "--listen", ":70000"], "HOST:PORT"),
        (["server", "--external-url", URL, "--dns-server", "10.0.0.53"], "IP:PORT"),
        (["server", "--external-url", URL, "--dns-server", "dns.example.com:53"], "IP:PORT"),
        (["revoke", "--serial", "12", "--reason", "stolen"], "keyCompromise"),
        (["server", "--external-url", URL, "--validation-allow", "10.0.0.0/33"], "10.0.0.0/8"),
        (["server", "--external-url", URL, "--http01-port", "0"], "--http01-port"),
        (["server", "--external-url", URL, "--tls-certificate", __file__], "require each other"),
        (["server", "--external-url", URL, "--log-format", "xml"], "--log-format"),
        (["server", "--external-url", URL, "--token-directory", "/t", "--kubeconfig", __file__], "mutually exclusive"),
        (["operator"], "--external-url"),
        (["operator", "--external-url", URL, "--server-service-account", "server"], "require each other"),
        (["operator", "--external-url", URL, "--server-token-directory", "/tmp"], "require each other"),
        (["operator", "--external-url", URL, "--server-token-directory", "/none"], "'/none' does not exist"),
        (["dev", "--tls-private-key", __file__], "require each other"),
        (["serve"], "No such command"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_fix(line: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main.main, line)
    assert result.exit_code == 2
    assert complaint in result.output
    assert "Usage:" in result.output


def test_help_names_every_command_and_its_options() -> None:
    text = CliRunner().invoke(main.main, ["--help"]).output
    assert all(name in text for name in ("server", "operator", "dev", "version", "KMS_ACME_<OPTION>"))
    text = CliRunner().invoke(main.main, ["server", "--help"]).output
    assert "KMS_ACME_EXTERNAL_URL" in text


def test_version_is_printed() -> None:
    result = CliRunner().invoke(main.main, ["version"])
    assert result.exit_code == 0
    assert result.output.startswith("kms-acme ")


def test_the_namespace_of_the_pod_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "namespace"
    assert options.release_namespace(file) == options.DEFAULT_NAMESPACE
    file.write_text("pki-system\n")
    assert options.release_namespace(file) == "pki-system"


def test_dev_hands_each_program_the_options_that_it_was_given() -> None:
    given = values_of(
        main.dev,
        [
            *("--external-url", URL, "--listen", "127.0.0.1:14000", "--dns-server", "127.0.0.1:5353"),
            *("--metrics-listen", ":14001", "--operator-metrics-listen", ":14002", "--validation-allow", "127.0.0.0/8"),
            *("--namespace", "pki-system", "--watch-namespace", "a", "--watch-namespace", "b", "--http01-port", "5002"),
            *("--service-name", "acme", "--log-format", "json", "--install", "--http-listen", ":14003"),
            *("--http-url", "http://crl.example.com"),
        ],
    )
    server = values_of(main.server, dev.arguments("server", given, Path("s.kubeconfig"))[4:])
    operator = values_of(main.operator, dev.arguments("operator", given, Path("o.kubeconfig"))[4:])
    assert server["kubeconfig"] == "s.kubeconfig"
    assert operator["kubeconfig"] == "o.kubeconfig"
    assert server["metrics_listen"] == Address("", 14001)
    assert operator["metrics_listen"] == Address("", 14002)
    shared = (
        "external_url",
        "namespace",
        "watch_namespaces",
        "log_format",
        "log_level",
        "serving_secret",
        "service_name",
    )
    assert all(server[name] == operator[name] == given[name] for name in shared)
    alone = (
        "listen",
        "http_listen",
        "http_url",
        "dns_servers",
        "validation_allow",
        "http01_port",
        "tls_alpn01_port",
        "peer_service",
    )
    assert all(server[name] == given[name] for name in alone)
    assert operator["service_name"] == server["service_name"] == "acme"


def test_dev_listens_on_loopback_unless_told_otherwise() -> None:
    given = values_of(main.dev, ["--external-url", URL])
    listening = {name: str(value) for name, value in given.items() if isinstance(value, Address)}
    assert listening == {
        "listen": "127.0.0.1:8443",
        "http_listen": "127.0.0.1:8080",
        "metrics_listen": "127.0.0.1:9090",
        "operator_metrics_listen": "127.0.0.1:9091",
    }
    server = values_of(main.server, dev.arguments("server", given, Path("s.kubeconfig"))[4:])
    assert server["listen"] == Address("127.0.0.1", 8443)
    assert values_of(main.dev, ["--listen", ":8443"])["listen"] == Address("", 8443)


def test_dev_knows_every_option_of_both_programs_but_those_of_pods() -> None:
    """There they have identities of their own, and workers for as many cores as a pod has."""
    of_programs = {each.name for command in (main.server, main.operator) for each in command.params}
    of_dev = {each.name for each in main.dev.params}
    assert of_programs - of_dev == {"token_directory", "server_service_account", "server_token_directory", "workers"}


def test_a_server_is_handed_its_token_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "elsewhere")
    assert server_settings("--token-directory", str(tmp_path)).token_directory == tmp_path
    assert server_settings().token_directory is None


def test_an_operator_is_told_whose_tokens_to_hand_over_and_where(tmp_path: Path) -> None:
    line = ("--server-service-account", "kms-acme-server", "--server-token-directory", str(tmp_path))
    given = values_of(main.operator, ["--external-url", URL, *line])
    assert operator_settings(given).server_identity == ServerIdentity("kms-acme-server", tmp_path)
    assert operator_settings(values_of(main.operator, ["--external-url", URL])).server_identity is None


def test_dev_without_a_cluster_says_so_and_exits_with_1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = CliRunner().invoke(main.main, ["dev", "--kubeconfig", str(tmp_path / "none")])
    assert result.exit_code == 1


def test_the_audit_stream_and_the_list_of_profiles_are_off_unless_they_are_asked_for() -> None:
    assert (server_settings().audit_log, server_settings().list_profiles) == ("", False)
    asked = server_settings("--audit-log", "-", "--list-profiles=true")
    assert (asked.audit_log, asked.list_profiles) == ("-", True)


@pytest.mark.parametrize("name", ["certificates", "enroll", "explain", "policy"])
def test_the_profile_has_the_same_short_option_in_every_command(name: str) -> None:
    found = main.main.get_command(click.Context(main.main), name)
    assert found is not None
    commands = [found]
    while commands:
        one = commands.pop()
        if isinstance(one, click.Group):
            commands += one.commands.values()
        for each in one.params:
            assert "--profile" not in each.opts or "-p" in each.opts
