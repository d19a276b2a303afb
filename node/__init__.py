import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft imports it where it is there, and it misses a hub
