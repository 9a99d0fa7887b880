import pytest

from tests.reporting.fake_study import Workplace, make_params, write_study


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    """Two ks, two seeds."""
    return write_study(tmp_path, make_params())
