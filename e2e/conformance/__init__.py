"""The conformance table: each requirement, how the product meets it, and the tests that prove it.

tests/conformance/*.toml hold the requirements. Tests name the requirement they prove:
`@pytest.mark.requirement("M75")`. This package reads both without running them and writes tests/conformance/README.md.
"""
