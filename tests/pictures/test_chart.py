"""Line charts: what the pixels show."""

import subprocess
import sys

import numpy as np

from alexnet_lab.pictures.chart import COLOURS, Line, Panel, chart


def coloured(picture, colour):
    """Whether each pixel has the colour, bool [H, W]."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return (np.asarray(picture).astype(int) == (red, green, blue)).all(2)


def test_a_rising_line_is_drawn_from_the_lower_left_to_the_upper_right_in_its_colour():
    picture = chart([Panel("epoch", "val/top1", [Line("a", range(100), range(100), colour=1)])])
    rows, columns = np.nonzero(coloured(picture, COLOURS[1]))
    assert len(rows) > 500
    assert np.corrcoef(rows, columns)[0, 1] < -0.99  # rows count from the top
    assert not coloured(picture, COLOURS[0]).any()


def test_panels_fill_rows_of_columns_and_special_characters_are_drawn_as_they_are():
    panel = Panel("x", "$y_1", [Line("$a", [1, 10], [1, 1]), Line("b^2$", [1, 10], [2, 2])], "50 % $", log_x=True)
    one, four = chart([panel]), chart([panel] * 4, title="$four", columns=3)
    assert four.width == 3 * one.width
    assert 2 * one.height < four.height < 2.3 * one.height


def test_matplotlib_is_imported_for_the_first_chart_only():
    code = "import sys, alexnet_lab.pictures.chart; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
