from matplotlib import image

from bench import pictures, report
from tests.bench.test_report import row


def test_both_pictures_are_drawn(tmp_path):
    rows = [
        row(system=system, length=length, passed=passed, ms=ms)
        for system, ms in (("copy", 0.1), ("engine", 300.0))
        for length, passed in ((10, True), (30, False), (400, None))
    ]
    _, figures = report.of(rows, "sealed")
    written = pictures.draw(figures, tmp_path)
    assert [file.name for file in written] == ["quality.png", "latency.png"]
    for file in written:
        pixels = image.imread(file)
        assert pixels.shape[0] > 300
        assert pixels.min() < pixels.max(), "an empty picture"


def test_a_system_without_unit_tests_or_some_length_is_drawn_where_it_has_figures(tmp_path):
    rows = [row(length=10), row(system="engine", length=300)]
    assert len(pictures.draw(report.of(rows, "sealed")[1], tmp_path)) == 2


def test_systems_stand_in_the_order_of_length_and_only_models_on_the_clock(tmp_path, monkeypatch):
    """Also where the first system has no hole of the shortest length."""
    drawn = []
    monkeypatch.setattr(pictures.plt, "close", drawn.append)
    rows = [row(system="copy", length=300, forwards=0), row(system="engine", length=10)]
    rows.append(row(system="engine", length=300))
    pictures.draw(report.of(rows, "sealed")[1], tmp_path)
    quality, latency = (picture.axes[0] for picture in drawn)
    assert [tick.get_text() for tick in quality.get_xticklabels()] == ["1-15", "over 250"]
    (copy,) = [bars for bars in quality.containers if bars.get_label() == "copy"]
    assert 0.5 < copy.lines[0].get_xdata()[0] < 1.5
    labels = latency.get_legend_handles_labels()[1]
    assert labels == ["engine, p50", "engine, p95"]
