"""The APIs that keep something for projects, as an application that runs in State.

Routers authenticate clients and pass their requests on with the id of the project.
"""
