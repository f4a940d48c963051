"""The operator: reconciles the configuration resources into Secrets and conditions."""
