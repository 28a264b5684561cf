"""Sliding window: the requests and tokens of the last minute.

Method: sums in buckets of a tenth of a second. Each counts for a minute after its last request, so
no request counts for less than a minute, nor for more than a tenth of a second longer. Whoever adds
to the window gets the bucket, by which the amount can be corrected later. All amounts are whole
numbers, so that nothing is left of what has been taken back. Amortized O(1) an operation, or
O(log buckets) for what came earlier; at most two buckets in a tenth of a second.
"""

import math
from bisect import bisect_left
from collections import deque

MINUTE_S = 60.0
GRAIN_S = 0.1
"""Width of a bucket."""


class Bucket:
    """Requests and tokens of a tenth of a second."""

    __slots__ = ("first_s", "is_live", "requests", "tokens", "until_s")

    def __init__(self, first_s: float, until_s: float) -> None:
        self.first_s = first_s
        self.until_s = until_s
        """Until when it counts."""
        self.requests = self.tokens = 0
        self.is_live = True


class Window:
    """Sliding window; times are in seconds, of a clock that never goes back."""

    __slots__ = (
        *("_buckets", "_full_s", "_length_s", "_newest"),
        *("expires_s", "requests", "tokens"),
    )

    def __init__(self, length_s: float = MINUTE_S) -> None:
        self._length_s = length_s
        self._buckets: deque[Bucket] = deque()
        self._newest = Bucket(-math.inf, -math.inf)
        """The last of the buckets."""
        self._full_s = -math.inf
        """When the newest bucket is a tenth of a second wide, so that another one begins."""
        self.requests = self.tokens = 0
        """Sums over the window, as of the last `expire`."""
        self.expires_s = math.inf
        """Before this time nothing leaves the window, and `expire` need not be called."""

    def expire(self, now_s: float) -> None:
        """Drop what has been in the window for its whole length."""
        buckets = self._buckets
        while buckets and buckets[0].until_s <= now_s:
            bucket = buckets.popleft()
            bucket.is_live = False
            self.requests -= bucket.requests
            self.tokens -= bucket.tokens
        self.expires_s = buckets[0].until_s if buckets else math.inf

    def add(self, now_s: float, requests: int, tokens: int) -> Bucket:
        """Move the window on and add requests that come now; return their bucket."""
        if now_s >= self.expires_s:
            self.expire(now_s)
        until_s = now_s + self._length_s
        if now_s >= self._full_s:
            self._begin(now_s, until_s)
        bucket = self._newest
        bucket.until_s = until_s
        bucket.requests += requests
        bucket.tokens += tokens
        self.requests += requests
        self.tokens += tokens
        return bucket

    def add_earlier(self, now_s: float, age_s: float, requests: int, tokens: int) -> None:
        """Add requests that came `age_s` ago."""
        if age_s >= self._length_s:
            return
        buckets, first_s = self._buckets, now_s - age_s
        until_s = first_s + self._length_s
        index = bisect_left(buckets, until_s, key=_until_s)
        if index < len(buckets) and buckets[index].until_s <= until_s + GRAIN_S:
            bucket = buckets[index]
            bucket.first_s = min(bucket.first_s, first_s)
        else:
            bucket = Bucket(first_s, until_s)
            buckets.insert(index, bucket)
            self.expires_s = buckets[0].until_s
        self._newest = buckets[-1]
        self._full_s = self._newest.first_s + GRAIN_S
        self.adjust(bucket, requests, tokens)

    def adjust(self, bucket: Bucket, requests: int, tokens: int) -> None:
        """Add to a bucket, or take back from it; nothing happens once it has left the window."""
        if bucket.is_live:
            bucket.requests += requests
            bucket.tokens += tokens
            self.requests += requests
            self.tokens += tokens

    def wait_s(self, now_s: float, requests: int, tokens: int) -> float:
        """Seconds until so many requests and tokens will have left the window."""
        wait_s = 0.0
        for bucket in self._buckets:
            if requests <= 0 and tokens <= 0:
                return wait_s
            requests -= bucket.requests
            tokens -= bucket.tokens
            wait_s = max(0.0, bucket.until_s - now_s)
        return wait_s if requests <= 0 and tokens <= 0 else self._length_s

    def reset_s(self, now_s: float) -> tuple[float, float]:
        """Seconds until the window has no requests, and no tokens."""
        requests_s = tokens_s = 0.0
        for bucket in reversed(self._buckets):
            left_s = max(0.0, bucket.until_s - now_s)
            if bucket.requests and not requests_s:
                requests_s = left_s
            if bucket.tokens and not tokens_s:
                tokens_s = left_s
            if requests_s and tokens_s:
                break
        return requests_s, tokens_s

    def _begin(self, now_s: float, until_s: float) -> None:
        """Begin another bucket."""
        self._newest = Bucket(now_s, until_s)
        self._full_s = now_s + GRAIN_S
        self._buckets.append(self._newest)
        if len(self._buckets) == 1:
            self.expires_s = until_s


def _until_s(bucket: Bucket) -> float:
    return bucket.until_s
