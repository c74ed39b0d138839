output "role_arns" {
  description = "Roles by service, for the chart's annotations of the service accounts."
  value       = { for service, role in aws_iam_role.this : service => role.arn }
}
