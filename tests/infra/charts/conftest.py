from tests.cluster import two_nodes  # noqa: F401  a fixture
