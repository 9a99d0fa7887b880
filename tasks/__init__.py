"""The stages of the graph (`dvc.yaml`) and what they are made of. Nothing here imports Hydra or `flows`."""
