"""Tell nbval what not to compare: standard error carries progress bars, which time themselves."""


def pytest_collectstart(collector):
    if getattr(collector, "path", None) is not None and collector.path.suffix == ".ipynb":
        collector.skip_compare += ("stderr",)
