"""The pixel sizes of images for each resolution and ratio, from the service's documentation."""

PIXELS: dict[str, dict[str, tuple[int, int]]] = {
    "2K": {
        "1:1": (2048, 2048),
        "4:3": (2304, 1728),
        "3:4": (1728, 2304),
        "16:9": (2560, 1440),
        "9:16": (1440, 2560),
        "3:2": (2496, 1664),
        "2:3": (1664, 2496),
        "21:9": (3024, 1296),
        "9:21": (1296, 3024),
    },
    "4K": {
        "1:1": (4096, 4096),
        "4:3": (4694, 3520),
        "3:4": (3520, 4694),
        "16:9": (5404, 3040),
        "9:16": (3040, 5404),
        "3:2": (4992, 3328),
        "2:3": (3328, 4992),
        "21:9": (6198, 2656),
        "9:21": (2656, 6198),
    },
}


def nearest_ratio(width: int, height: int) -> str:
    """Return the service's ratio that is nearest to width x height pixels (by the quotient of the two)."""

    def distance(ratio: str) -> float:
        wide, high = ratio.split(":")
        quotient = (width * int(high)) / (height * int(wide))
        return max(quotient, 1 / quotient)

    return min(PIXELS["2K"], key=distance)
