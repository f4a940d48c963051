from kms.contract import Program, lease_name


def test_each_program_of_each_installation_has_a_lease_of_its_own() -> None:
    programs: tuple[Program, ...] = ("server", "operator")
    names = {lease_name(service, program) for service in ("one", "two") for program in programs}
    assert names == {"one-server", "one-operator", "two-server", "two-operator"}
