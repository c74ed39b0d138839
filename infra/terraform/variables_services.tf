variable "api" {
  description = "The API's tasks: CPU units and MiB each, how many, and the average CPU (percent) that target tracking holds."
  type = object({
    cpu         = optional(number, 512)
    memory      = optional(number, 1024)
    min_tasks   = optional(number, 2)
    max_tasks   = optional(number, 10)
    cpu_percent = optional(number, 60)
  })
  default = {}

  validation {
    condition     = var.api.min_tasks >= 2 && var.api.max_tasks >= var.api.min_tasks
    error_message = "api.min_tasks must be at least 2 (one per zone) and at most api.max_tasks."
  }

  validation {
    condition     = var.api.cpu_percent >= 10 && var.api.cpu_percent <= 90
    error_message = "api.cpu_percent must be from 10 to 90."
  }
}

variable "worker" {
  description = "The workers' tasks and the scaling rule: desired = ceil((visible + in flight) / backlog_per_task), held between min_tasks and max_tasks; out after scale_out_cooldown_s, in after scale_in_cooldown_s. A worker handles some hundred messages a second, so 100 keep the wait well under a second."
  type = object({
    cpu                  = optional(number, 512)
    memory               = optional(number, 1024)
    min_tasks            = optional(number, 2)
    max_tasks            = optional(number, 10)
    backlog_per_task     = optional(number, 100)
    scale_out_cooldown_s = optional(number, 60)
    scale_in_cooldown_s  = optional(number, 300)
    oldest_age_s         = optional(number, 5)
  })
  default = {}

  validation {
    condition     = var.worker.min_tasks >= 0 && var.worker.max_tasks >= 1 && var.worker.max_tasks >= var.worker.min_tasks
    error_message = "worker.min_tasks must be 0 or more (0 only to pause the pool) and at most worker.max_tasks."
  }

  validation {
    condition     = var.worker.backlog_per_task >= 1
    error_message = "worker.backlog_per_task must be at least 1."
  }

  validation {
    condition     = var.worker.scale_in_cooldown_s >= var.worker.scale_out_cooldown_s
    error_message = "Scaling in faster than out makes the number of workers swing."
  }

  validation {
    condition     = var.worker.oldest_age_s >= 5
    error_message = "worker.oldest_age_s below 5 would act on an ordinary receive."
  }
}

variable "autoscaling" {
  description = "Whether the numbers of tasks follow load; false keeps min_tasks of each."
  type        = bool
  default     = true
}

variable "paused" {
  description = "Scales both services to zero and keeps table, queues and secrets: for maintenance and restores. Requests in the queue stay there, for 4 days at most."
  type        = bool
  default     = false

  validation {
    condition     = !var.paused || var.autoscaling
    error_message = "paused works through the bounds of autoscaling; without it use aws ecs update-service --desired-count 0."
  }
}

variable "scheduled_scaling" {
  description = "Changes of the bounds of autoscaling at known times, by name: service (api or worker), schedule (at(...), cron(...) or rate(...)), timezone, min_tasks and max_tasks. One entry raises, another lowers again. An apply in between sets the bounds back to min_tasks until the next entry."
  type = map(object({
    service   = optional(string, "worker")
    schedule  = string
    timezone  = optional(string, "UTC")
    min_tasks = number
    max_tasks = optional(number)
  }))
  default = {}

  validation {
    condition     = alltrue([for change in values(var.scheduled_scaling) : contains(["api", "worker"], change.service)])
    error_message = "scheduled_scaling is of the service api or worker."
  }

  validation {
    condition     = alltrue([for change in values(var.scheduled_scaling) : can(regex("^(at|cron|rate)\\(.+\\)$", change.schedule))])
    error_message = "A schedule is at(...), cron(...) or rate(...), as Application Auto Scaling writes them."
  }

  validation {
    condition = alltrue([for change in values(var.scheduled_scaling) : (
      change.min_tasks >= 0 && change.min_tasks <= coalesce(change.max_tasks, change.service == "api" ? var.api.max_tasks : var.worker.max_tasks)
    )])
    error_message = "scheduled_scaling.min_tasks must be at most max_tasks, of the entry or of the service."
  }
}

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days must be a number of days that CloudWatch Logs knows."
  }
}

variable "save_queries" {
  description = "Whether the questions of the runbook are saved in CloudWatch Logs Insights."
  type        = bool
  default     = true
}

variable "alarms" {
  description = "Where alarms go (SNS topics; none makes alarms that only show) and their thresholds. actions are for what wakes a person, ticket_actions (null: the same) for what can wait until the morning. Ages and latencies are seconds. census_minutes is the interval of the census: up to 100,000 sandboxes that of the job (1), and as long again for each further 100,000; never less than the job's. slo_availability_percent and slo_fast_percent are the objectives for answers without 5xx and for answers within latency_p99_s, over 30 days; with log groups latencies are those of allocate calls, without the ones that may wait in a line."
  type = object({
    actions                  = optional(list(string), [])
    ok_actions               = optional(list(string), [])
    ticket_actions           = optional(list(string))
    oldest_request_s         = optional(number, 30)
    oldest_maintenance_s     = optional(number, 1800)
    pool_available_min       = optional(number, 50)
    census_minutes           = optional(number, 1)
    pending_deletion_max     = optional(number, 2000)
    error_percent            = optional(number, 1)
    error_min_requests       = optional(number, 10)
    waits_run_out_percent    = optional(number, 1)
    latency_p99_s            = optional(number, 2)
    cpu_percent              = optional(number, 85)
    memory_percent           = optional(number, 85)
    slo_availability_percent = optional(number, 99.9)
    slo_fast_percent         = optional(number, 99)
    slo_min_requests         = optional(number, 100)
  })
  default = {}

  validation {
    condition     = alltrue([for arn in concat(var.alarms.actions, var.alarms.ok_actions, coalesce(var.alarms.ticket_actions, [])) : startswith(arn, "arn:")])
    error_message = "alarms.actions, ok_actions and ticket_actions are ARNs."
  }

  validation {
    condition     = var.alarms.error_percent > 0 && var.alarms.error_percent <= 100
    error_message = "alarms.error_percent must be above 0 and at most 100."
  }

  validation {
    condition     = var.alarms.census_minutes >= 1 && var.alarms.census_minutes <= 600
    error_message = "alarms.census_minutes must be from 1 to 600."
  }

  validation {
    condition     = min(var.alarms.slo_availability_percent, var.alarms.slo_fast_percent) >= 90 && max(var.alarms.slo_availability_percent, var.alarms.slo_fast_percent) < 100
    error_message = "An objective is from 90 to below 100 percent."
  }
}
