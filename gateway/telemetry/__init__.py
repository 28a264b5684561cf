"""Wire format between routers and engine replicas: dispatch, demand, usage and telemetry."""
