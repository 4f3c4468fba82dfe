"""From one engine YAML to a running server: native or Docker Compose; health, logs, stop."""
