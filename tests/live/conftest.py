"""What tests of the live room have in common."""

import ipywidgets
import pytest


@pytest.fixture(autouse=True)
def no_widgets_left():
    """Widgets of one test are not there in the next, whose state would take long to tell."""
    yield
    ipywidgets.Widget.close_all()
