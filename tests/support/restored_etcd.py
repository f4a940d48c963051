"""etcd, restored from a snapshot."""

from __future__ import annotations

import copy

from tests.support.apiserver import FakeApiServer


class Snapshot:
    """What etcd holds now."""

    def __init__(self, api: FakeApiServer) -> None:
        self._objects, self._version = copy.deepcopy(api.store.by_key), api.store.version

    def restore(self, api: FakeApiServer, *, bump: int = 0) -> None:
        """Everything is as it was, and what happened since has never happened.

        The API server serves a watch from a version that has not come yet without an error: it is silent until then.
        With `bump`, versions continue beyond all that were there, and older ones are gone, as by
        `etcdutl snapshot restore --bump-revision ... --mark-compacted`.
        """
        api.store.by_key, api.store.version = copy.deepcopy(self._objects), self._version + bump
        api.store.history.clear()
        if bump:
            api.store.oldest = api.store.version
        api.drop_watches()
