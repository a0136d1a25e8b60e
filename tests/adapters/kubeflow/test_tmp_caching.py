from flowyml.testing import CachingConformance
from tests.adapters.kubeflow.test_conformance import TestSubprocessRunner as _Base


class TestC(CachingConformance):
    make_orchestrator = _Base.__dict__["make_orchestrator"]
    run_timeout = _Base.run_timeout
