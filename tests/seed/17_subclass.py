from flowyml.orchestrators import LocalOrchestrator

class MyOrchestrator(LocalOrchestrator):
    def execute(self, pipeline, run_id, context):
        # Custom pre/post logic here
        return super().execute(pipeline, run_id, context)
