"""The Helm chart: what it renders to, what it refuses, and whether Kubernetes would take it."""

import engine


def pytest_report_header():
    return f"helm: {engine.program() or 'the library in helm-sdkpy'}"


def pytest_sessionfinish():
    if engine.stand_in.cache_info().currsize:
        engine.stand_in().stop()
        engine.stand_in().folder.cleanup()
