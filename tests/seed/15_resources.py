from flowyml.core.resources import ResourceRequirements

@step(resources=ResourceRequirements(cpu="2", memory="4Gi"))
