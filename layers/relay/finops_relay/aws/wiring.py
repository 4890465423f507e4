"""Put the parts together for a function: clients are built when first needed, and live as long as the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse

from finops_relay.aws.batch import Batch, Message
from finops_relay.aws.bus import EventBus
from finops_relay.aws.events import NotUnderstoodError
from finops_relay.aws.logs import Counters, log_call, logger
from finops_relay.aws.objects import S3Drops, S3Spool
from finops_relay.aws.queues import FifoQueue, StandardQueue
from finops_relay.aws.settings import Settings
from finops_relay.aws.tables import ContractNotes, DynamoLedger
from finops_relay.delivery.ports import Clock, Ports
from finops_relay.delivery.telling import quarantine_message
from finops_relay.delivery.waits import Waits

if TYPE_CHECKING:
    import boto3

    from finops_relay.cloudzero.client import CloudZero
    from finops_relay.http.answers import Advice
    from finops_relay.http.auth import Credential, TokenSource
    from finops_relay.http.client import HttpClient
    from finops_relay.infracost.client import Infracost
    from finops_relay.sources.backstage import Backstage
    from finops_relay.sources.http_json import HttpJson
    from finops_relay.sources.servicenow import ServiceNow
    from finops_relay.sources.settings import AnySource


class Context(Protocol):
    """What we use of Lambda's context."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds left."""


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Relay:
    """The parts of one function's process."""

    settings: Settings
    _tokens: dict[tuple[str, ...], TokenSource] = field(default_factory=dict)

    def client(self, service: str) -> Any:  # noqa: ANN401 -- boto3's clients are made by name
        """Return the process's client of an AWS service."""
        return _boto_client(service)

    @property
    def waits(self) -> Waits:
        """How long waits after trouble are."""
        return Waits(self.settings.retry_first_s, self.settings.retry_cap_s)

    def ports(self, clock: Clock, counters: Counters) -> Ports:
        """Return everything that a job may touch."""
        settings = self.settings
        return Ports(
            ledger=DynamoLedger(self.client("dynamodb"), settings.ledger_table, settings.ledger_days, clock.now),
            drops=S3Drops(self.client("s3"), settings.drops_bucket),
            spool=S3Spool(self.client("s3"), settings.spool_bucket),
            queue=FifoQueue(self.client("sqs"), settings.deliver_queue_url or settings.queue_url),
            bus=EventBus(self.client("events"), settings.bus_name),
            metrics=counters,
            clock=clock,
        )

    @property
    def prepare_queue(self) -> StandardQueue:
        """Where a delivery is sent back to the function that prepared it."""
        return StandardQueue(self.client("sqs"), self.settings.prepare_queue_url)

    @property
    def telemetry_prepare_queue(self) -> StandardQueue:
        """Likewise, for telemetry."""
        return StandardQueue(self.client("sqs"), self.settings.telemetry_prepare_queue_url)

    @property
    def infracost_queue(self) -> FifoQueue:
        """The queue of the function that delivers to Infracost, for one whose own is CloudZero's."""
        return FifoQueue(self.client("sqs"), self.settings.infracost_deliver_queue_url)

    @cached_property
    def pool(self) -> Executor:
        """A thread for what can be got ready while a vendor's answer is awaited."""
        return ThreadPoolExecutor(1)

    @cached_property
    def _wire(self) -> Any:  # noqa: ANN401 -- httpx is imported in one package only
        from finops_relay.http.wire import new_wire  # noqa: PLC0415 -- functions that call no vendor never load it

        return new_wire()

    def infracost(self, slug: str, clock: Clock) -> Infracost:
        """Return the client for an organization's slug; its token is read when first needed."""
        from finops_relay.http.auth import Credential  # noqa: PLC0415 -- as above
        from finops_relay.infracost.advice import advice  # noqa: PLC0415 -- as above
        from finops_relay.infracost.client import Infracost, api_base  # noqa: PLC0415 -- as above

        names = dict.fromkeys([f"infracost/{slug}", "infracost/default"] if slug else ["infracost/default"])
        auth = Credential(self._token(*names), " or ".join(names))
        return Infracost(self._http(api_base(self.settings.infracost_api_url), auth, advice, clock))

    def cloudzero(self, clock: Clock) -> CloudZero:
        """Return the client for the tenant, in the contract that it speaks; found out once, and kept in the ledger.

        Raises as `finops_relay.cloudzero.connect.connect`.
        """
        from finops_relay.cloudzero.advice import advice  # noqa: PLC0415 -- as above
        from finops_relay.cloudzero.connect import client_of, credential  # noqa: PLC0415 -- as above

        settings = self.settings
        auth = credential(self._token("cloudzero"), "cloudzero", bearer=settings.cloudzero_bearer)
        http = self._http(settings.cloudzero_api_url.rstrip("/"), auth, advice, clock)
        ledger = DynamoLedger(self.client("dynamodb"), settings.ledger_table, settings.ledger_days, clock.now)
        return client_of(http, settings.cloudzero_contract, ContractNotes(ledger))

    def source(self, name: str, config: AnySource, clock: Clock) -> ServiceNow | Backstage | HttpJson:
        """Return the reader of a source of truth by its *name* in relay.yaml; its secret is read when first needed."""
        from finops_relay.http.auth import NOBODY, Credential, basic  # noqa: PLC0415 -- as above
        from finops_relay.sources import advice  # noqa: PLC0415 -- as above
        from finops_relay.sources.backstage import Backstage  # noqa: PLC0415 -- as above
        from finops_relay.sources.http_json import HttpJson  # noqa: PLC0415 -- as above
        from finops_relay.sources.servicenow import ServiceNow  # noqa: PLC0415 -- as above

        secret = config.secret or f"sources/{name}"
        way = "bearer" if config.type == "backstage" else config.auth
        auth = NOBODY
        if way == "basic":
            auth = basic(self._token(secret, basic=True), secret)
        elif way == "bearer":
            auth = Credential(self._token(secret), secret, noun="token of the source")
        base = config.url.rstrip("/")
        if config.type == "servicenow":
            return ServiceNow(self._http(base, auth, advice.servicenow, clock))
        if config.type == "backstage":
            return Backstage(self._http(base, auth, advice.backstage, clock))
        return HttpJson(self._http(base, auth, advice.http_json, clock))

    def _token(self, *names: str, basic: bool = False) -> TokenSource:
        """Return the source of a secret, which is the first of *names* that exists."""
        from finops_relay.aws.secrets import token_source  # noqa: PLC0415 -- as above

        kept = (*names, "basic") if basic else names
        if kept not in self._tokens:
            self._tokens[kept] = token_source(self.client("secretsmanager"), *names, basic=basic)
        return self._tokens[kept]

    def _http(self, base_url: str, auth: Credential, advice: Advice, clock: Clock) -> HttpClient:
        """Return the core for one API, over the connections that the process keeps."""
        from finops_relay.http.client import HttpClient  # noqa: PLC0415 -- as above

        return HttpClient(
            base_url=base_url,
            auth=auth,
            advice=advice,
            remaining_s=clock.remaining_s,
            on_call=log_call,
            wire=self._wire,
        )

    def handle(
        self,
        event: dict[str, Any],
        context: Context,
        job: Callable[[Message, Ports], object],
    ) -> PartialItemFailureResponse:
        """Run *job* for each message of an SQS event; what nobody can read goes to quarantine."""
        counters = Counters()
        clock = Clock(now, lambda: context.get_remaining_time_in_millis() / 1000)
        ports = self.ports(clock, counters)

        def one(message: Message) -> None:
            try:
                job(message, ports)
            except NotUnderstoodError as error:
                logger.error("message put into quarantine", message_id=message.id, reason=str(error))
                quarantine_message(ports, message.id, message.body, str(error))

        try:
            return self._batch.process(event, one)
        finally:
            counters.flush()

    def handle_whole(
        self,
        event: dict[str, Any],
        context: Context,
        job: Callable[[Sequence[Message], Ports], object],
    ) -> None:
        """Run *job* once for all messages of an SQS event."""
        counters = Counters()
        ports = self.ports(Clock(now, lambda: context.get_remaining_time_in_millis() / 1000), counters)
        try:
            self._batch.process_whole(event, lambda messages: job(messages, ports))
        finally:
            counters.flush()

    @property
    def _batch(self) -> Batch:
        """How this function takes its messages."""
        return Batch(sqs=self.client("sqs"), queue_url=self.settings.queue_url, waits=self.waits)


@cache
def relay() -> Relay:
    """Return the parts of this process, made from its environment."""
    return Relay(Settings.read())


@cache
def _boto_client(service: str) -> Any:  # noqa: ANN401 -- as Relay.client
    from botocore.config import Config  # noqa: PLC0415 -- as _session

    retries = Config(retries={"mode": "standard", "max_attempts": 4}, connect_timeout=5, read_timeout=60)
    make: Callable[..., Any] = _session().client  # the stubs know one overload a literal name
    return make(service, config=retries)


@cache
def _session() -> boto3.session.Session:
    """Return the session that all clients share: what one has read of the services' models the next one need not."""
    import boto3  # noqa: PLC0415 -- 170 ms that the first message pays, not the start-up

    return boto3.session.Session()
