import logging
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before anything of Hugging Face is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it where it is there, and it misses a hub
