"""The conformance document: each line of the requirements, how it is met, and the tests that prove it.

What a line says and how it is met stands in docs/conformance/*.toml. Which tests prove it, the tests themselves say:
`@pytest.mark.requirement("M75")`. Both are read without running anything, and made into docs/conformance.md.
"""
