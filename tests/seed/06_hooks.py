# 1.0 — Structured lifecycle hooks with typed events
from flowyml.core.hooks import PipelineHook


class MyHook(PipelineHook):
    def on_pipeline_start(self, pipeline_name, run_id, context):
        print(f"🚀 Pipeline '{pipeline_name}' started (run: {run_id})")

    def on_step_start(self, step_name, inputs):
        print(f"  ▶ Step '{step_name}' starting...")

    def on_step_end(self, step_name, outputs, duration):
        print(f"  ✅ Step '{step_name}' done in {duration:.2f}s")

    def on_pipeline_end(self, pipeline_name, run_id, status, duration):
        print(f"🏁 Pipeline finished: {status} ({duration:.2f}s)")

    def on_error(self, step_name, error):
        print(f"  ❌ Step '{step_name}' failed: {error}")


# Register hooks
pipeline = Pipeline("my_pipeline", hooks=[MyHook()])
pipeline.run()
