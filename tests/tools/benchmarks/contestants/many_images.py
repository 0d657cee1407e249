"""img2dataset on a list of URLs: downloads and hashes, without decoding or resizing.

python many_images.py LIST FOLDER
"""

from __future__ import annotations

import sys

from img2dataset import download

if __name__ == "__main__":
    download(
        url_list=sys.argv[1],
        input_format="txt",
        output_folder=sys.argv[2],
        output_format="files",
        processes_count=1,
        thread_count=32,
        resize_mode="no",
        disable_all_reencoding=True,
        compute_hash="sha256",
        enable_wandb=False,
        retries=0,
    )
