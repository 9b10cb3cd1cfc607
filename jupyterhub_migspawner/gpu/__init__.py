"""Cards: profiles, layouts, inventory, cutting, device nodes, and simulated cards for all of it.

Knows nothing of users or leases. The only part of the package that imports NVIDIA's binding of
NVML (``pynvml`` of ``nvidia-ml-py``). Start at ``nvml`` for the cards of this node, at
``partition`` for getting from one layout to another, at ``simulator`` for cards on a machine
without any.
"""
