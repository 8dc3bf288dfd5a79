"""The NetAdapt loop, without torch: proposals of candidates, targets, the selection of winners, and the correction of targets."""
