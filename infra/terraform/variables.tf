# What must be given: name, image, network, certificate. Everything else has a default that suits a pool of some thousand sandboxes.

variable "name" {
  description = "What every name begins with: table, queues (BROKER_PREFIX), services, roles, alarms. One deployment per name, account and region."
  type        = string
  default     = "broker"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,22}[a-z0-9]$", var.name))
    error_message = "name must have 3 to 24 characters of a-z 0-9 -, begin with a letter and not end with a hyphen."
  }
}

variable "image" {
  description = "The image with broker, broker-api and broker-worker. Name it by digest (repository@sha256:...), so that what runs cannot change under a tag."
  type        = string

  validation {
    condition     = can(regex("^[^\\s:@]+(:[0-9]+)?(/[^\\s:@]+)*(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must carry a tag other than latest, or a digest."
  }
}

variable "cpu_architecture" {
  description = "What the image was built for: ARM64 (cheaper) or X86_64."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.cpu_architecture)
    error_message = "cpu_architecture must be ARM64 or X86_64."
  }
}

variable "settings" {
  description = "More BROKER_* settings for API and worker, by name. Secrets do not belong here, and what this module sets itself cannot be set."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : startswith(name, "BROKER_")])
    error_message = "settings are BROKER_* names only."
  }

  validation {
    condition     = alltrue([for name in keys(var.settings) : !can(regex("TOKEN", name))])
    error_message = "Tokens are secrets: put them into the secrets that this module makes (outputs secret_arns)."
  }

  validation {
    condition = length(setintersection(keys(var.settings), [
      "BROKER_TABLE", "BROKER_PREFIX", "BROKER_LISTEN", "BROKER_METRICS_LISTEN", "BROKER_LAME_DUCK_S", "BROKER_DRAIN_S",
      "BROKER_VISIBILITY_S", "BROKER_LOCAL", "BROKER_LOG_FORMAT", "BROKER_SCHEDULER", "BROKER_THREADS",
    ])) == 0
    error_message = "BROKER_TABLE, _PREFIX, _LISTEN, _METRICS_LISTEN, _LAME_DUCK_S, _DRAIN_S, _VISIBILITY_S, _LOCAL, _LOG_FORMAT, _SCHEDULER and _THREADS follow from other variables of this module."
  }
}

variable "visibility_s" {
  description = "Seconds for which a received message stays hidden from other workers; the queues' visibility timeout and BROKER_VISIBILITY_S."
  type        = number
  default     = 30

  validation {
    condition     = var.visibility_s >= 2 && var.visibility_s <= 43200 && floor(var.visibility_s) == var.visibility_s
    error_message = "visibility_s must be a whole number from 2 to 43200."
  }
}

variable "drain_s" {
  description = "Seconds that a process may take to finish its work after SIGTERM (BROKER_DRAIN_S), after the 15 in which an API goes on serving until the load balancer knows. Fargate kills 120 s after SIGTERM at the latest; 15 s of them are kept for the end itself."
  type        = number
  default     = 60

  validation {
    condition     = var.drain_s >= 1 && var.drain_s <= 90 && floor(var.drain_s) == var.drain_s
    error_message = "drain_s must be a whole number from 1 to 90."
  }
}

variable "kms_key_arn" {
  description = "Customer-managed KMS key for table, queues, secrets and logs; null leaves it to keys that AWS owns (encrypted as well, without the cost per call). Its policy must admit CloudWatch Logs and Scheduler."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, not of an alias."
  }
}

variable "deletion_protection" {
  description = "Whether table and load balancer refuse to be deleted."
  type        = bool
  default     = true
}

variable "point_in_time_recovery" {
  description = "Whether the table can be restored to any second of the last 35 days."
  type        = bool
  default     = true
}

variable "table_max_request_units" {
  description = "The most read and write request units a second that table and index may take (a bound on cost); null leaves the account's quota."
  type = object({
    read  = number
    write = number
  })
  default = null

  validation {
    condition     = var.table_max_request_units == null ? true : min(var.table_max_request_units.read, var.table_max_request_units.write) >= 100
    error_message = "table_max_request_units below 100 would throttle an ordinary morning."
  }
}

variable "external_schedule" {
  description = "Jobs that EventBridge Scheduler starts in the place of the workers (BROKER_SCHEDULER=external), each with its rate(...) or cron(...), e.g. { sync = \"rate(10 minutes)\" }. Jobs that are not named are started as often as the workers would; give census a slower one beyond 100,000 sandboxes. Empty: the workers keep the schedule among themselves."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.external_schedule), ["sync", "expire", "cleanup", "purge_stale", "census", "sweep"])) == 0
    error_message = "The jobs are sync, expire, cleanup, purge_stale, census and sweep."
  }

  validation {
    condition     = alltrue([for rate in values(var.external_schedule) : can(regex("^(rate|cron)\\(.+\\)$", rate))])
    error_message = "A job is given as rate(...) or cron(...), as EventBridge Scheduler writes them."
  }
}

variable "secret_recovery_days" {
  description = "Days for which a deleted secret can be brought back; 0 deletes at once."
  type        = number
  default     = 7

  validation {
    condition     = var.secret_recovery_days == 0 || (var.secret_recovery_days >= 7 && var.secret_recovery_days <= 30)
    error_message = "secret_recovery_days must be 0 or 7 to 30."
  }
}

variable "tags" {
  description = "Tags for everything, beside Name."
  type        = map(string)
  default     = {}
}

variable "service_secrets" {
  description = "More secrets for the tasks, by service and BROKER_* setting: the ARN of a Secrets Manager secret, e.g. the provider's token for the worker."
  type = object({
    api    = optional(map(string), {})
    worker = optional(map(string), {})
  })
  default = {}

  validation {
    condition = alltrue([
      for name, arn in merge(var.service_secrets.api, var.service_secrets.worker) :
      startswith(name, "BROKER_") && can(regex("^arn:[^:]+:secretsmanager:", arn))
    ])
    error_message = "service_secrets are BROKER_* names, each with the ARN of a secret."
  }
}
