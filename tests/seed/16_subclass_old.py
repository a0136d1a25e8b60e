class MyPipeline(Pipeline):
    def run(self):
        # Custom logic here — breaks in 1.0
        ...
