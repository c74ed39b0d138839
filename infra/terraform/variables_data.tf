variable "table_name" {
  description = "Name of the DynamoDB table (BROKER_TABLE); null takes name. After a restore it is the name of the restored table."
  type        = string
  default     = null

  validation {
    condition     = var.table_name == null || can(regex("^[A-Za-z0-9_.-]{3,255}$", var.table_name))
    error_message = "table_name must have 3 to 255 characters of A-Z a-z 0-9 _ . -."
  }
}

variable "restore_table_name" {
  description = "Name of a second table that the operator policy covers: a restored one before table_name points at it, the old one after that. null takes NAME-restored, and NAME once table_name is NAME-restored; a trailing * is allowed."
  type        = string
  default     = null

  validation {
    condition     = var.restore_table_name == null || can(regex("^[A-Za-z0-9_.-]{3,255}\\*?$", var.restore_table_name))
    error_message = "restore_table_name must have 3 to 255 characters of A-Z a-z 0-9 _ . -, and may end with *."
  }
}

variable "state_shards" {
  description = "Index partitions per sandbox state (BROKER_STATE_SHARDS). Once the table holds data it is changed by broker pool reshard: see infra/docs/RUNBOOK.md."
  type        = number
  default     = 16

  validation {
    condition     = var.state_shards >= 1 && var.state_shards <= 50 && floor(var.state_shards) == var.state_shards
    error_message = "state_shards must be a whole number from 1 to 50."
  }
}

variable "provider_rate" {
  description = "Deletions per second that all workers together ask the provider for (BROKER_PROVIDER_RATE). It is the ceiling of what comes back into circulation: 2 are 172,800 sandboxes a day."
  type        = number
  default     = 2

  validation {
    condition     = var.provider_rate >= 1 && var.provider_rate <= 100 && floor(var.provider_rate) == var.provider_rate
    error_message = "provider_rate must be a whole number from 1 to 100."
  }
}

variable "job_intervals_s" {
  description = "Seconds between two runs of a job, whether the workers start it or external_schedule does and does not name it: sync, expire, cleanup, purge, census, sweep, refill. Jobs that are not named keep the broker's default."
  type        = map(number)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.job_intervals_s), ["sync", "expire", "cleanup", "purge", "census", "sweep", "refill"])) == 0
    error_message = "The jobs are sync, expire, cleanup, purge, census, sweep and refill."
  }

  validation {
    condition     = alltrue([for seconds in values(var.job_intervals_s) : seconds >= 1 && seconds <= 604800 && floor(seconds) == seconds])
    error_message = "job_intervals_s are whole seconds from 1 to 604800, a week."
  }
}

variable "external_schedule" {
  description = "Jobs that EventBridge Scheduler starts instead of the workers (BROKER_SCHEDULER=external), each with its rate(...) or cron(...), e.g. { sync = \"rate(10 minutes)\" }. Jobs that are not named run at their job_intervals_s or the broker's default, in whole minutes: refill once a minute, which is as often as EventBridge Scheduler can. A census from outside is not made rarer by the size of the pool: name it for one over 100,000, with a minute for each 100,000. Empty: the workers keep the schedule."
  type        = map(string)
  default     = {}

  validation {
    condition     = length(setsubtract(keys(var.external_schedule), ["sync", "expire", "cleanup", "purge_stale", "census", "sweep", "refill"])) == 0
    error_message = "The jobs are sync, expire, cleanup, purge_stale, census, sweep and refill."
  }

  validation {
    condition     = alltrue([for rate in values(var.external_schedule) : can(regex("^(rate|cron)\\(.+\\)$", rate))])
    error_message = "A job is given as rate(...) or cron(...), as EventBridge Scheduler writes them."
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
  description = "Maximum read and write request units per second of table and index (a bound on cost); null leaves the account's quota."
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

variable "warm_throughput" {
  description = "Read and write units per second that the output warm_throughput_command asks DynamoDB to keep ready for table and index. AWS accepts at least 12000 and 4000, and never a decrease."
  type = object({
    read  = optional(number, 12000)
    write = optional(number, 8000)
  })
  default = {}

  validation {
    condition     = var.warm_throughput.read >= 12000 && var.warm_throughput.write >= 4000
    error_message = "warm_throughput must be at least 12000 read and 4000 write units, what a new on-demand table has."
  }
}
