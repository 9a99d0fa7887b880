"""Parts of the schema of `params.yaml`, which `tasks.params` puts together."""
