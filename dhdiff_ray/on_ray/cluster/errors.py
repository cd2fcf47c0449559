"""What a cluster's refusals mean for who types: one line, with what to type next (DESIGN: habits)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dhdiff_ray.on_ray.cluster.local import ClusterError

ANSWER_SECONDS = 5.0
"""How long a cluster may take to answer the first question; Ray's own client would wait for ever."""


def check_answers(address: str) -> None:
    """Ask a cluster anything, so that an address where nothing answers is told at once.

    Raises:
        ClusterError: nobody answers there in time.
    """
    import requests

    with reached(address):
        requests.get(f"{address}/api/version", timeout=ANSWER_SECONDS)


@contextlib.contextmanager
def reached(address: str, job_id: str = "") -> Iterator[None]:
    """While open, what Ray's client raises becomes an error that says what to do.

    Args:
        address: of the cluster.
        job_id: the job that is asked for, if one is.

    Raises:
        ClusterError: nobody answers, the token is missing or wrong, or the cluster says something else.
        ValueError: there is no such job, or its id is taken.
    """
    import requests
    from ray.exceptions import AuthenticationError
    from ray.util.state.exception import RayStateApiException, ServerUnavailable

    try:
        yield
    except AuthenticationError:
        raise ClusterError(
            f"the cluster at {address} refuses us: it wants a token. Put it into ~/.ray/auth_token or "
            "RAY_AUTH_TOKEN (on the head node `ray get-auth-token` prints it), then: dhdiff-ray doctor --address "
            f"{address}"
        ) from None
    except (ConnectionError, requests.exceptions.RequestException, ServerUnavailable) as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({type(error).__name__}); give the dashboard's address, "
            f"such as http://127.0.0.1:8265. Check with: dhdiff-ray doctor --address {address}; without "
            "--address and RAY_ADDRESS a private cluster is started for the command"
        ) from None
    except RayStateApiException as error:
        raise ClusterError(f"the cluster at {address} does not tell what it has: {error}") from None
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, ClusterError):
            raise
        if "already exists" in text or "already been used" in text:
            raise ValueError("a job of that id was already submitted; see: dhdiff-ray jobs list") from None
        if "404" in text or "does not exist" in text:
            what = f"no job {job_id!r} at {address}; see: dhdiff-ray jobs list" if job_id else text
            raise ValueError(what) from None
        raise ClusterError(f"the cluster at {address} answered: {text}") from None
