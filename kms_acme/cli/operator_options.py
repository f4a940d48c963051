"""Options of the operator, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from kms.contract import lease_name
from kms_acme.cli.options import Command, apply_options, maximum, option, settings_of_both
from kms_operator.settings import OperatorSettings, ServerIdentity


def operator_options(command: Command) -> Command:
    """Options of the operator alone."""
    return apply_options(
        command,
        (
            option(
                "--cert-manager-namespace",
                default="cert-manager",
                show_default=True,
                help="Namespace from which cert-manager reads the Secrets of ClusterIssuers (its"
                " --cluster-resource-namespace).",
            ),
            option(
                "--cluster-issuers-from",
                multiple=True,
                help="Namespace whose profiles may have ClusterIssuers and Issuers in other namespaces. Repeatable."
                " The release namespace is always included.",
            ),
            option(
                "--trust-from",
                multiple=True,
                help="Namespace whose CertificateAuthorities may publish their roots in other namespaces (spec.trust)."
                " Repeatable. The release namespace is always included.",
            ),
            option(
                "--open-profiles-from",
                multiple=True,
                help="Namespace whose profiles may be open: externalAccountBinding Optional or Disabled, or"
                " ownershipValidation Skipped. Repeatable; * stands for all namespaces. The release namespace is always"
                " included.",
            ),
            option(
                "--external-authorities-from",
                multiple=True,
                help="Namespace whose CertificateAuthorities may be external (spec.external) or have their keys in key"
                " stores (spec.internal.keyStore): its members make the programs call others. Repeatable. The release"
                " namespace is always included.",
            ),
            option(
                "--notifications-from",
                multiple=True,
                help="Namespace whose profiles and CertificateAuthorities may have receivers of notifications"
                " (spec.notifications): its members make the server call others. Repeatable. The release namespace is"
                " always included.",
            ),
            maximum(
                "--maximum-profiles-per-namespace",
                default=100,
                help="Maximum number of CertificateProfiles of one namespace that work.",
            ),
            maximum(
                "--maximum-secrets",
                default=5_000,
                help="Maximum number of keys of CertificateAuthorities and EABCredentials in the release namespace.",
            ),
            maximum(
                "--maximum-secrets-per-namespace",
                default=1_000,
                help="Maximum number of keys of the CertificateAuthorities and EABCredentials of one namespace.",
            ),
        ),
    )


def operator_in_pod(command: Command) -> Command:
    """Options of an operator that hands tokens to the server in its pod."""
    return apply_options(
        command,
        (
            option(
                "--server-service-account",
                help="ServiceAccount in the release namespace for which the operator requests the server's tokens.",
            ),
            option(
                "--server-token-directory",
                type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
                help="Directory for the tokens of --server-service-account. Each is replaced before it expires.",
            ),
        ),
    )


def operator_settings(values: Mapping[str, Any]) -> OperatorSettings:
    """Settings of the operator from its options. Raises click.UsageError if options contradict each other."""
    return OperatorSettings(
        **settings_of_both(values),
        lease_name=lease_name(values["service_name"], "operator"),
        http_url=values["http_url"],
        server_identity=_server_identity(values),
        cert_manager_namespace=values["cert_manager_namespace"],
        cluster_issuers_from=values["cluster_issuers_from"],
        trust_from=values["trust_from"],
        open_profiles_from=values["open_profiles_from"],
        external_authorities_from=values["external_authorities_from"],
        notifications_from=values["notifications_from"],
        maximum_profiles_per_namespace=values["maximum_profiles_per_namespace"],
        maximum_secrets=values["maximum_secrets"],
        maximum_secrets_per_namespace=values["maximum_secrets_per_namespace"],
    )


def _server_identity(values: Mapping[str, Any]) -> ServerIdentity | None:
    service_account, directory = values["server_service_account"], values["server_token_directory"]
    if (service_account is None) != (directory is None):
        raise click.UsageError(
            "--server-service-account and --server-token-directory require each other: set both or neither."
        )
    return None if directory is None else ServerIdentity(service_account, directory)
