"""Stage `warmup`: the short supervised start of RFT (ReFT, arXiv 2401.08967); 0 steps give the base model itself."""

from tasks.sft import main

if __name__ == "__main__":
    main("warmup")
