"""The rig under `benches/routed.py`: the programs that are measured, and the clients that measure them."""
