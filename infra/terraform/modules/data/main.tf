# Table, queues, permissions and the optional external schedule: what every deployment needs, wherever its processes run.

data "aws_region" "this" {}

locals {
  tags = merge(var.tags, { Name = var.name })
  # The attribute `name` is deprecated in version 6 of the provider; `id` is the same in both.
  region     = data.aws_region.this.id
  table_name = coalesce(var.table_name, var.name)
  account    = split(":", aws_dynamodb_table.this.arn)[4]

  interval_settings = { for job, seconds in var.job_intervals_s : "BROKER_${upper(job)}_EVERY_S" => tostring(seconds) }
}
