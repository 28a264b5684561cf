"""Routing policies, one in each module: each chooses among a request's candidate replicas.

To add one, write one module here. Its name is the policy's name with underscores for hyphens; it
defines one class with that `name`, which implements `gateway.routing.policy.RoutingPolicy` and is
made from a `random.Random`. It is synchronous, does no I/O, and may keep state of its own. From
then on the name works in `routing.policy` of a model entry and in `gateway simulate --policy`, and
is listed by `gateway docs`.
"""
