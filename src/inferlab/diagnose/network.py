"""Which model sites answer: Hugging Face (or the configured mirror) and ModelScope."""

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from inferlab.settings import Settings

TIMEOUT_S = 4.0
HUGGING_FACE = "https://huggingface.co"
MODELSCOPE = "https://www.modelscope.cn"


def reachability(settings: Settings) -> dict[str, str | None]:
    """Site → None when it answers, else a short reason; the configured endpoint comes first."""
    sites = [settings.hf_endpoint or HUGGING_FACE]
    # A reader who chose a mirror does not need the official site.
    if settings.use_modelscope or not settings.hf_endpoint:
        sites.append(MODELSCOPE)
    with ThreadPoolExecutor() as pool:
        return dict(zip(sites, pool.map(problem_with, sites), strict=True))


def problem_with(site: str) -> str | None:
    """None when the site answers HTTP at all, else why not."""
    request = urllib.request.Request(site, method="HEAD", headers={"User-Agent": "inferlab-doctor"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        # A proxy that refuses the site answers 403 or 407 in its place.
        return None if error.code not in (403, 407) else f"HTTP {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))[:80]
