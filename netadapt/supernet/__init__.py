"""Super-networks: one training for all widths of a network, whose narrower versions are judged without a fine-tune of their own.

The idea is that of NetAdaptV2 (Yang, Liao and Sze, CVPR 2021, https://arxiv.org/abs/2104.00031). Its code was never published;
where its text leaves something open, the choice is ours, and the module that makes it says so.
"""
