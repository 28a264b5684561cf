"""Routing policies: pure functions of a request and its candidate replicas, one in each module.

To add one, write one module here. Its name is the policy's name with underscores for hyphens; it
defines one class with that `name`, which implements `gateway.routing.policy.RoutingPolicy` and is
made from a `random.Random`. From then on the name works in `routing.policy` of a model entry and in
`gateway simulate --policy`, and is listed by `gateway docs`.
"""
