"""A Feast compute engine that materializes inside PostgreSQL, by one statement.

Feast's local engine takes every row out of the database, makes a protobuf message of every value
and gives them to the online store. Where source and online table are in one database and nothing
is computed on the way, an `INSERT ... SELECT` writes the same. Any other view goes the local
engine's way. In feature_store.yaml:

    batch_engine:
      type: espalier.features.in_database_engine.InDatabaseComputeEngine
"""

from __future__ import annotations

from typing import Any

from feast import FeatureView
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStore,
    PostgreSQLRetrievalJob,
)
from feast.infra.registry.base_registry import BaseRegistry

from espalier.features.wide_row_store import WideRowOnlineStore


class InDatabaseComputeEngine(LocalComputeEngine):
    """The engine."""

    def _materialize_one(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        view, store = task.feature_view, self.online_store
        if (
            isinstance(store, WideRowOnlineStore)
            and self._in_one_database()
            and _computes_nothing(view)
        ):
            try:
                query = self._newest(registry, task)
                written = store.write_query(self.repo_config, view, query)
            # Feast asks the job for its error, and raises it.
            except Exception as error:  # noqa: BLE001
                return LocalMaterializationJob(
                    job_id=view.name, status=MaterializationJobStatus.ERROR, error=error
                )
            if written:
                return LocalMaterializationJob(
                    job_id=view.name, status=MaterializationJobStatus.SUCCEEDED
                )
        return super()._materialize_one(registry, task, **kwargs)

    def _in_one_database(self) -> bool:
        offline, online = self.repo_config.offline_store, self.repo_config.online_store
        return isinstance(self.offline_store, PostgreSQLOfflineStore) and all(
            getattr(offline, part) == getattr(online, part) for part in ("host", "port", "database")
        )

    def _newest(self, registry: BaseRegistry, task: MaterializationTask) -> str:
        """The offline store's query for each entity's newest row of the interval."""
        view = task.feature_view
        source = view.batch_source
        assert source is not None, "a view that computes nothing has a source"
        job = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=[
                registry.get_entity(name, task.project).join_key
                for name in view.entities
                # The offline store adds the key of a view without entities itself.
                if name != DUMMY_ENTITY_NAME
            ],
            feature_name_columns=[feature.name for feature in view.features],
            timestamp_field=source.timestamp_field,
            created_timestamp_column=source.created_timestamp_column,
            start_date=task.start_time,
            end_date=task.end_time,
        )
        assert isinstance(job, PostgreSQLRetrievalJob)
        return job.to_sql()


def _computes_nothing(view: FeatureView) -> bool:
    """Whether the view's rows are its source's, column by column."""
    return (
        type(view) is FeatureView
        and view.online
        and not view.offline
        and not view.enable_validation
        and not view.source_views
        and view.stream_source is None
        and view.batch_source is not None
        and bool(view.batch_source.created_timestamp_column)
        and not view.batch_source.field_mapping
    )
