from flowyml import Pipeline


class AuditedPipeline(Pipeline):
    def run(self, *args, **kwargs):
        print("audit")
        return super().run(*args, **kwargs)


def describe(run):
    if run.status == "FAILED":
        return "failed"
    if run.status == "odd":
        return "odd"
    return run["state"] != "RUNNING"


def submit(orchestrator, pipeline):
    return orchestrator.run_pipeline(pipeline)
