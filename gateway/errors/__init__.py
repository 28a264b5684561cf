"""All errors of the gateway, with their HTTP status and OpenAI's `type` and `code`.

GatewayError                    500  server_error
├── ConfigError                      (never reaches a client: stops the start)
├── PlacementFailed                  (never reaches a client: stops the replica)
├── InvalidRequest              400  invalid_request_error
│   ├── InvalidJSON                  invalid_json
│   ├── MissingParameter             missing_required_parameter
│   ├── UnknownParameter             unknown_parameter
│   ├── AlreadyExists                already_exists
│   ├── PreviousResponseNotFound     previous_response_not_found
│   ├── ProjectArchived              project_archived
│   ├── TooManyKeys                  too_many_keys
│   ├── KeyExpired                   key_expired
│   ├── LimitExceeded                limit_exceeded
│   ├── AdapterBroken                adapter_broken
│   ├── ContextExceeded              context_length_exceeded
│   ├── InvalidKey              401  invalid_api_key
│   ├── NotThroughProxy         403  not_through_proxy
│   ├── CacheNotPrivate         403  cache_not_private
│   ├── NotFound                404  not_found
│   ├── ObjectNotFound          404  object_not_found
│   ├── StateNotConfigured      404  state_not_configured
│   ├── StorageFull                  storage_quota_exceeded
│   ├── BatchNotCancellable          batch_not_cancellable
│   ├── BatchNotEnded                batch_not_ended
│   ├── AnswerTooLarge               answer_too_large
│   ├── TooManyBatches          429  batch_limit_exceeded (type rate_limit_error)
│   ├── Unsupported             404  unsupported
│   ├── RequestNotFound         404  request_not_found
│   ├── RouteNotAllowed         403  route_not_allowed
│   ├── UnknownRoute            404  unknown_url
│   ├── UnsupportedRoute        404  unsupported_route
│   ├── ModelNotFound           404  model_not_found
│   ├── MethodNotAllowed        405  method_not_allowed
│   ├── InvalidEncoding              invalid_content_encoding
│   ├── BodyTooSlow             408  body_timeout
│   ├── BodyTooLarge            413  body_too_large
│   ├── UnsupportedEncoding     415  unsupported_content_encoding
│   ├── UpgradeRefused          426  upgrade_refused
│   └── UnsupportedTransfer     501  unsupported_transfer_encoding
├── Overloaded                  429  overloaded (type rate_limit_error)
│   └── BodyBudgetExceeded           body_budget_exceeded
├── RateLimited                 429  rate_limit_exceeded (type requests or tokens)
│   └── QuotaExceeded                insufficient_quota (type insufficient_quota)
├── TooManyFailures             429  too_many_failures (type rate_limit_error)
├── TooManyConnections          429  too_many_connections (type rate_limit_error)
├── UpstreamFailed              502  upstream_failed
├── StreamLost                  502  stream_lost
├── EngineDraining              503  draining
│   └── EngineDied                   engine_died
├── AuthUnavailable             503  auth_unavailable
├── AccountsDown                503  accounts_unavailable
├── StateDown                   503  state_unavailable
│   └── NotStored                    not_stored
├── ModelUnavailable            503  model_unavailable
├── SpendUnknown                503  spend_unknown
├── ShuttingDown                503  shutting_down
└── DeadlineExceeded            504  timeout
"""
