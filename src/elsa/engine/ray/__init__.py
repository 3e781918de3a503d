"""The simulation out of one process, and out of one machine, over Ray; `docs/ray.md`.

    driver: Runner -> Spread (the rounds)         a process of Ray, one an edge
                        Crew (the state)  ~~~~>   Process -> Host
                          RemoteEdge                         EdgeSide, Federation

Only `cluster` knows Ray. What crosses is what crosses the link between an edge and the cloud, the
same bytes, and for checkpoints what devices and edges must keep.
"""
