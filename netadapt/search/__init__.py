"""The NetAdapt loop without torch: candidates, targets, winners, and what measured latencies do to them."""
