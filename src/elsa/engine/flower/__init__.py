"""The cloud-edge link over Flower: needs the extra `elsa[flower]`; nothing else imports it.

    elsa cloud: Orders -- door -- ServerApp -- SuperLink -- front
                                                              ^  the network
    elsa edge:  Entry -- door -- ClientApp -- SuperNode -----+

The frames are those of the gRPC link and pass unread; a Flower message carries one order, that is
a global round with all its edge rounds.
"""
