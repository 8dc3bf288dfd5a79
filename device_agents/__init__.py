"""Reaching devices: `device_agents.discovery.open_agent("ssh:jetson")`."""
