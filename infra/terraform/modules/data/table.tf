# The table as common/store/src/dynamodb/schema.rs makes it: `broker init` against what this module made says "is there".

resource "aws_dynamodb_table" "this" {
  #checkov:skip=CKV_AWS_119:kms_key_arn is the caller's choice; without it the table is encrypted by a key that AWS owns
  name                        = local.table_name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "PK"
  range_key                   = "SK"
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  dynamic "attribute" {
    for_each = ["PK", "SK", "state_shard", "state_key"]
    content {
      name = attribute.value
      type = "S"
    }
  }

  global_secondary_index {
    name               = "StateIndex"
    hash_key           = "state_shard"
    range_key          = "state_key"
    projection_type    = "INCLUDE"
    non_key_attributes = ["sandbox_id", "name", "external_id", "version", "lab_duration_hours"]

    dynamic "on_demand_throughput" {
      for_each = var.table_max_request_units[*]
      content {
        max_read_request_units  = on_demand_throughput.value.read
        max_write_request_units = on_demand_throughput.value.write
      }
    }
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery
  }

  server_side_encryption {
    enabled     = var.kms_key_arn != null
    kms_key_arn = var.kms_key_arn
  }

  dynamic "on_demand_throughput" {
    for_each = var.table_max_request_units[*]
    content {
      max_read_request_units  = on_demand_throughput.value.read
      max_write_request_units = on_demand_throughput.value.write
    }
  }
}
